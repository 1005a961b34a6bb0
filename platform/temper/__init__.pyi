from temper.api import calibrate as calibrate
from temper.api import evaluate as evaluate
from temper.api import export as export
from temper.api import fit as fit
from temper.api import leaderboard as leaderboard
from temper.api import load_recipe as load_recipe
from temper.api import predict as predict
from temper.api import resume_sweep as resume_sweep
from temper.api import sweep as sweep
from temper.api import train as train

__version__: str
