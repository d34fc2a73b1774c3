"""Networks as scikit-learn's estimators: they clone, pickle, and take part in Pipeline and GridSearchCV. Needs the
extra `sklearn`.

`MLPClassifier`, `MLPRegressor`: scikit-learn's own arguments. `NetworkClassifier(net)`, `NetworkRegressor(net)`: any
network.
"""
from graphc.doors.sklearn.mlp import MLPClassifier, MLPRegressor
from graphc.doors.sklearn.network import NetworkClassifier, NetworkRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "NetworkClassifier", "NetworkRegressor"]
