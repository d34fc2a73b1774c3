"""Estimators of scikit-learn. Its package is imported only here."""
