# How pretrain.sbatch and finetune.sbatch run: one torchrun per node under srun, back into the queue until the model is
# written. Sourced after job.sh; defines train COMMAND, which uses ${words[@]}: CONFIG OUTPUT [--set KEY=VALUE ...].
# shellcheck shell=bash
# shellcheck disable=SC2154 # words, nodes, head_node, in_container and dry_run are job.sh's

train() {
  local command=$1
  if [ ${#words[@]} -lt 2 ]; then
    echo "usage: sbatch [options of sbatch] slurm/$command.sbatch [--dry-run] CONFIG OUTPUT [--set KEY=VALUE ...]" >&2
    exit 2
  fi
  local config=${words[0]} output=${words[1]}
  local port=${PORT:-$((20000 + SLURM_JOB_ID % 10000))} processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-1} / processes > 1 ? SLURM_CPUS_PER_TASK / processes : 1))}

  # torchrun dies of a signal that it is not told to handle, leaves its workers behind, and kills them 30 s after one
  # that it handles. The number of a restart is part of the id, so that the processes of two attempts never meet.
  # Each node has its own SLURMD_NODENAME, hence the inner shell.
  # shellcheck disable=SC2016
  local launch=(
    srun --kill-on-bad-exit=1 "${in_container[@]}"
    bash -c 'exec torchrun --local-addr "$SLURMD_NODENAME" "$@"' torchrun
    --nnodes "$nodes" --nproc-per-node "$processes"
    --rdzv-backend c10d --rdzv-endpoint "$head_node:$port" --rdzv-id "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
    --signals-to-handle "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1" --shutdown-timeout "${SHUTDOWN_TIMEOUT:-100}"
    --module ionbed "$command" "$config" "${words[@]:2}" --set "output=$output" --resume auto
  )
  if [ -n "$dry_run" ]; then
    run_or_print "${launch[@]}"
    return
  fi
  if [ -f "$output/manifest.json" ]; then
    echo "$output is finished already"
    return
  fi

  local checkpoint_before stop_before status=0
  checkpoint_before=$(text_of "$output/checkpoints/latest") stop_before=$(step_of "$output/stopped.json")
  "${launch[@]}" || status=$?

  # torchrun exits 1 after a clean stop as after a failure: files decide. The manifest is written last of all; the
  # marker stopped.json when a signal has stopped the run. A run that stops twice in a row at one step, or fails without
  # having got further, would do so again, so it is not put back.
  local checkpoint stop
  checkpoint=$(text_of "$output/checkpoints/latest") stop=$(step_of "$output/stopped.json")
  if [ -f "$output/manifest.json" ]; then
    echo "finished: $output"
  elif [ "$checkpoint" != "$checkpoint_before" ] || { [ -n "$stop" ] && [ "$stop" != "$stop_before" ]; }; then
    echo "unfinished at ${checkpoint:-the start} (srun exited $status): back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
  else
    echo "unfinished, and no further than ${checkpoint:-the start} (srun exited $status): not put back into the queue" >&2
    exit 1
  fi
}

# The text of a file, or nothing.
text_of() { cat "$1" 2>/dev/null || true; }

# The step that a marker names, or nothing.
step_of() { text_of "$1" | sed -n 's/.*"step": *\([0-9]*\).*/\1/p'; }
