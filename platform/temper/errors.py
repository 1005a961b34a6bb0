"""The exceptions that temper raises on purpose.

    TemperError
    ├── UsageError            the call itself is wrong (exit code 2)
    │   ├── RecipeError       a recipe or an override
    │   └── SearchSpaceError  a search space
    ├── DataError             images, folders
    │   └── ShardError        shards or their manifest
    ├── ModelError            a backbone or its weights
    ├── CheckpointError       a checkpoint or a run folder
    ├── RecordError           a record or a ledger
    ├── StorageError          a disk, a place in S3, or the copy of it here
    ├── TrainingError         a run that cannot continue
    │   └── DivergenceError   its loss or its weights are not finite
    ├── JobError              a job, or the cluster that it is sent to
    └── Interrupted       someone stopped it; it can resume (exit code 130)

The command line prints the message of a TemperError. Any other exception is a defect of temper.
"""


class TemperError(Exception):
    """Base of every error that temper raises on purpose; its message is meant for users."""


class UsageError(TemperError):
    """The call is wrong: nothing was started."""


class RecipeError(UsageError):
    """A recipe, or an override of one, does not describe a run."""


class SearchSpaceError(UsageError):
    """A search space names something that a recipe does not have, or allows."""


class DataError(TemperError):
    """Images or folders that cannot be used."""


class ShardError(DataError):
    """Shards or a manifest that are missing, damaged or do not agree."""


class ModelError(TemperError):
    """A backbone or its weights cannot be built."""


class CheckpointError(TemperError):
    """A checkpoint is missing, damaged or belongs to another run."""


class RecordError(TemperError):
    """A record is missing, damaged, of another schema, or already exists."""


class StorageError(TemperError):
    """A disk is full or refuses; or what lies in S3 cannot be reached, or another process writes there."""


class TrainingError(TemperError):
    """A run cannot continue, for example because its loss is not finite."""


class DivergenceError(TrainingError):
    """A run's loss or weights stopped being finite."""


class JobError(TemperError):
    """A cluster that does not answer or take a job, or a job that is not as it should be."""


class Interrupted(TemperError):  # noqa: N818  # no error: someone wanted it
    """Work that was stopped from outside and can be resumed; the message says how."""
