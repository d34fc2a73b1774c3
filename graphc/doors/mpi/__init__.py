"""Training steps whose shards are computed by the ranks of an MPI job. mpi4py is imported only here."""
from graphc.doors.mpi.distributed import distributed
