"""A trained model in use: answers for images, a calibration of them, and files for other programs."""

from temper.deployment.calibrate import calibrate
from temper.deployment.classifier import Classifier
from temper.deployment.export import export
from temper.deployment.predict import Prediction, Predictions, predict

__all__ = ["Classifier", "Prediction", "Predictions", "calibrate", "export", "predict"]
