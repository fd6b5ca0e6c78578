# What differs from one cluster to the next; sourced by the job script on its first node. srun hands the environment to
# all nodes. Edit this file, or keep your own elsewhere and name it: sbatch --export=ALL,SITE=$HOME/site.sh ...
# shellcheck shell=bash

# Modules. With the wheels of PyTorch, which bring CUDA along, usually none is needed.
# module purge
# module load python/3.11

# The virtual environment that ionbed is installed in; it must be visible from all nodes.
VENV=${VENV:-$SLURM_SUBMIT_DIR/.venv}
export PATH="$VENV/bin:$PATH"

# Caches: off the home folder where that has a small quota, and not shared between jobs where files may clash.
# export HF_HOME=$SCRATCH/huggingface
# export TMPDIR=/local/$SLURM_JOB_ID         # must exist on every node

# The network that the processes meet and exchange gradients on; both guess, and may guess the slow one.
# export NCCL_SOCKET_IFNAME=ib0              # GPUs
# export GLOO_SOCKET_IFNAME=ib0              # CPUs
