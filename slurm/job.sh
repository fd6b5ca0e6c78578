# What every job script of this folder begins with; sourced with the words given to it. Sets
#   words         those words without --dry-run
#   nodes         number of nodes of the job
#   head_node     the first of them
#   in_container  words to put before a command: none, or apptainer's
#   part          of a task of a job array: --part K/N, of the tasks or of the variable PARTS; else none
# and defines run_or_print. See site.sh for the variables that a cluster sets.
# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by the scripts that source it
set -euo pipefail

dry_run=
words=()
for word in "$@"; do
  if [ "$word" = --dry-run ]; then dry_run=1; else words+=("$word"); fi
done

# Run a command, or print it in a dry run.
run_or_print() {
  if [ -z "$dry_run" ]; then
    "$@"
  else
    printf '%q ' "$@"
    echo
  fi
}

if [ -z "${SLURM_JOB_ID:-}" ]; then
  if [ -z "$dry_run" ]; then
    echo "this is a job script: give it to sbatch, or add --dry-run to see what it would run" >&2
    exit 2
  fi
  : "${SLURM_JOB_ID:=0}" "${SLURM_SUBMIT_DIR:=$PWD}"
fi
nodes=${SLURM_JOB_NUM_NODES:-1}
if [ -n "${SLURM_JOB_NODELIST:-}" ]; then
  head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
else
  head_node=FIRST_NODE
fi

export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} # compute nodes rarely reach the internet
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun no longer takes it over by itself
fi
# shellcheck source=slurm/site.sh
source "${SITE:-${SCRIPTS:-$SLURM_SUBMIT_DIR/slurm}/site.sh}"

in_container=()
if [ -n "${CONTAINER:-}" ]; then
  in_container=(apptainer exec --nv "$CONTAINER")
fi

part=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  if [ -z "${PARTS:-}" ]; then
    PARTS=$SLURM_ARRAY_TASK_COUNT
    # shellcheck disable=SC2153
    if [ "$SLURM_ARRAY_TASK_MIN" != 1 ] || [ "$SLURM_ARRAY_TASK_MAX" != "$PARTS" ]; then
      echo "the array is not 1-N: write --array 1-16, or say of how many parts by --export=ALL,PARTS=16" >&2
      exit 2
    fi
  fi
  part=(--part "$SLURM_ARRAY_TASK_ID/$PARTS")
fi
