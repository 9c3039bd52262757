# The public names of jgmm, and where each is defined; read when a name is first used.
from . import classifier as classifier
from . import covariance as covariance
from . import differentiation as differentiation
from . import distributed as distributed
from . import em as em
from . import estimators as estimators
from . import fitting as fitting
from . import gradient as gradient
from . import initialization as initialization
from . import kmeans as kmeans
from . import mixture as mixture
from . import plot as plot
from . import selection as selection
from . import streaming as streaming
from . import uncertainty as uncertainty
from ._core.errors import DataError as DataError
from ._core.errors import FitError as FitError
from ._core.status import Status as Status
from ._fit import fit as fit
from .em.algorithm import em_step as em_step
from .em.e_step import accumulate as accumulate
from .em.m_step import m_step as m_step
from .em.options import Options as Options
from .em.statistics import Statistics as Statistics
from .fitting.results import FitResult as FitResult
from .mixture.conditioning import condition as condition
from .mixture.conditioning import marginal as marginal
from .mixture.density import e_step as e_step
from .mixture.density import log_prob as log_prob
from .mixture.density import predict as predict
from .mixture.density import responsibilities as responsibilities
from .mixture.density import sample as sample
from .mixture.mixture import Mixture as Mixture
from .mixture.mixture import make_mixture as make_mixture
from .selection.selection import select as select

__version__: str
