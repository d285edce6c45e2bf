#!/bin/bash
# A whole recipe as SLURM jobs; each starts when the previous one has succeeded.
#
#   bash configs/slurm/submit.sh --dry-run                  check every step, print the sbatch lines, submit nothing
#   bash configs/slurm/submit.sh                            configs/patent-llama/plan.yaml, from its first step
#   bash configs/slurm/submit.sh --plan mine.yaml --from general --account=patents --partition=gpu
#
# Other arguments are passed to every sbatch. Every step is first checked with --dry-run, so a mistake in the last one
# shows before anything is submitted. Each script states what its job needs; a training job gets its signal as long
# before its time limit as `make plan` says (for the machine of the plan that needs most). If set, DATA_TASKS gives the
# --array size of data jobs, NODES (default 4) the --nodes of training jobs, and GPUS (default 8) the GPUs per node.
set -euo pipefail

PYTHON=${VENV:-.venv}/bin/python PLAN=configs/patent-llama/plan.yaml FROM="" DRY=""
OPTIONS=()
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) DRY=1 ;;
    --plan) PLAN=$2; shift ;;
    --from) FROM=$2; shift ;;
    *) OPTIONS+=("$1") ;;
  esac
  shift
done

NAMES=() COMMANDS=() LEADS=()
STEPS=$("$PYTHON" -m tools.plan --config "$PLAN" --commands)
while IFS=$'\t' read -r name command lead; do
  [ "$name" = "$FROM" ] && FROM=""
  [ -n "$FROM" ] || { NAMES+=("$name"); COMMANDS+=("$command"); LEADS+=("$lead"); }
done <<< "$STEPS"
[ ${#NAMES[@]} -gt 0 ] || { echo "error: --from $FROM: no such step in $PLAN." >&2; exit 2; }

PROCESSES=$((${NODES:-4} * ${GPUS:-8}))
[ "$PROCESSES" -gt 0 ] || { echo "error: NODES=${NODES:-4} GPUS=${GPUS:-8}: both must be at least 1." >&2; exit 2; }
for i in "${!NAMES[@]}"; do
  echo "# ${NAMES[i]}: python -m ${COMMANDS[i]} --dry-run"
  WORLD_SIZE=$PROCESSES bash -c "'$PYTHON' -m ${COMMANDS[i]} --dry-run" | sed 's/^/#   /'
done

before=""
for i in "${!NAMES[@]}"; do
  words=()
  eval "words=(${COMMANDS[i]})" # the command's own quotes
  line=(sbatch --parsable --kill-on-invalid-dep=yes --job-name="${NAMES[i]}")
  [ -z "$before" ] || line+=(--dependency="afterok:$before")
  [ -z "${LEADS[i]}" ] || line+=(--signal="USR1@${LEADS[i]}")
  case ${words[0]} in
    data) line+=(${DATA_TASKS:+--array=0-$((DATA_TASKS - 1))}) job=(data.sbatch "${words[@]:2}") ;;
    pretrain | sft) line+=(${NODES:+--nodes=$NODES} ${GPUS:+--gpus-per-node=$GPUS}) job=(train.sbatch "${words[@]}") ;;
    delta) job=(room.sbatch "${words[@]}" --resume) ;;
    *) line+=(--gpus-per-node="${GPUS:-8}" --mem=0) job=(room.sbatch "${words[@]}") ;;
  esac
  line+=(${OPTIONS[@]+"${OPTIONS[@]}"} "configs/slurm/${job[0]}" "${job[@]:1}")
  printf '%q ' "${line[@]}"
  if [ -n "$DRY" ]; then
    before="ID-OF-${NAMES[i]}"
  else
    before=$("${line[@]}")
    before=${before%%;*}
    printf '# job %s' "$before"
  fi
  echo
done
