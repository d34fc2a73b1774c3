"""What happens between the steps of `step.fit`: stop early, lower the rate, save, log."""
from graphc.callbacks.callback import Callback
from graphc.callbacks.logs import CSVLog, TensorBoard
from graphc.callbacks.rate import LearningRate, ReduceOnPlateau
from graphc.callbacks.saving import Checkpoint
from graphc.callbacks.stopping import EarlyStopping
