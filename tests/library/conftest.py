"""Libraries that several tests use, exported once."""
from __future__ import annotations

import pytest

import graphc as gc

import networks


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(a small training step with what predicts, the folder of its library "net")."""
    case, folder = networks.mlp(), tmp_path_factory.mktemp("trained")
    gc.export(case.functions, folder, targets=networks.here())
    return case, folder


@pytest.fixture(scope="session")
def sized(tmp_path_factory):
    """The folder of a library with a lookup that may fail, and a size N from 2 to 64."""
    folder = tmp_path_factory.mktemp("sized")

    @gc.graph
    def lookup(table: gc.f32[10, 4], ids: gc.i32["N"]):
        return gc.embedding(table, ids) * 2
    gc.export(lookup, folder, name="look", targets=networks.here(), N=(2, 64))
    return folder
