# What differs from one cluster to the next; sourced by the job scripts on the first node of a job. srun hands the
# environment to all nodes. Edit this file, or keep your own elsewhere and name it:
#   sbatch --export=ALL,SITE=$HOME/site.sh ...
# shellcheck shell=bash

# Modules. With the wheels of PyTorch, which bring CUDA along, usually none is needed.
# module purge
# module load python/3.11

# The virtual environment that ionbed is installed in; it must be visible from all nodes.
VENV=${VENV:-$SLURM_SUBMIT_DIR/.venv}
export PATH="$VENV/bin:$PATH"

# Or a container, made from ionbed.def; then the environment above is not used. Name what it is to see besides your
# home and the folder the job is submitted in.
# CONTAINER=$HOME/ionbed.sif
# export APPTAINER_BIND=/scratch,/project

# Without network: models and data sets come from here. Fill it on a login node ('ionbed data', 'hf download').
# export HF_HOME=$SCRATCH/huggingface

# Temporary files: on the node, not on the shared file system. The folder must exist on every node.
# export TMPDIR=/local/$SLURM_JOB_ID

# The network that the processes meet and exchange gradients on; both guess, and may guess the slow one.
# export NCCL_SOCKET_IFNAME=ib0              # GPUs
# export GLOO_SOCKET_IFNAME=ib0              # CPUs
# export NCCL_IB_HCA=mlx5                    # InfiniBand adapters, where some are not to be used
# export NCCL_DEBUG=INFO                     # says what was chosen, to look for once
