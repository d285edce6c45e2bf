#!/bin/bash
# A file of steps as SLURM jobs; each starts when those that it needs have succeeded.
#
#   bash configs/slurm/submit.sh --dry-run                  check every step, print the sbatch lines, submit nothing
#   bash configs/slurm/submit.sh                            configs/patent-llama/plan.yaml, from its first step
#   bash configs/slurm/submit.sh --plan mine.yaml --from general --account=patents --partition=gpu
#   SEEDS=5 bash configs/slurm/submit.sh --plan configs/studies/continued-pretraining.yaml     a study
#
# Other arguments are passed to every sbatch. Every step is first checked with --dry-run, so a mistake in the last one
# shows before anything is submitted. Each script states what its job needs; a training job gets its signal as long
# before its time limit as `make plan` says (for the machine of the plan that needs most). If set, DATA_TASKS gives the
# --array size of data jobs, NODES (default 4) the --nodes of training jobs, and GPUS (default 8) the GPUs per node. A
# study's jobs take one node each, and what their step's `resources` say; STUDY_ARGS are variables and levels.
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

NAMES=() NEEDS=() LEADS=() GPU=() MEMORY=() COMMANDS=()
# shellcheck disable=SC2086 # STUDY_ARGS are words
STEPS=$("$PYTHON" -m tools.jobs --config "$PLAN" ${SEEDS:+--seeds "$SEEDS"} ${STUDY_ARGS:-})
while IFS=$'\x1f' read -r name needs lead gpus memory command; do
  [ "$name" = "$FROM" ] && FROM=""
  [ -n "$FROM" ] || { NAMES+=("$name") NEEDS+=("$needs") LEADS+=("$lead") GPU+=("$gpus") MEMORY+=("$memory") COMMANDS+=("$command"); }
done < <(tr '\t' '\037' <<< "$STEPS") # a tab would swallow empty fields
[ ${#NAMES[@]} -gt 0 ] || { echo "error: --from $FROM: no such step in $PLAN." >&2; exit 2; }

PROCESSES=$((${NODES:-4} * ${GPUS:-8}))
[ "$PROCESSES" -gt 0 ] || { echo "error: NODES=${NODES:-4} GPUS=${GPUS:-8}: both must be at least 1." >&2; exit 2; }
for i in "${!NAMES[@]}"; do
  echo "# ${NAMES[i]}: python -m ${COMMANDS[i]} --dry-run"
  WORLD_SIZE=$PROCESSES bash -c "'$PYTHON' -m ${COMMANDS[i]} --dry-run" | sed 's/^/#   /'
done

declare -A JOBS=()
for i in "${!NAMES[@]}"; do
  words=()
  eval "words=(${COMMANDS[i]})" # the command's own quotes
  line=(sbatch --parsable --kill-on-invalid-dep=yes --job-name="${NAMES[i]}")
  before=""
  for need in ${NEEDS[i]//,/ }; do
    before+=${JOBS[$need]:+:${JOBS[$need]}} # those before --from are done
  done
  [ -z "$before" ] || line+=(--dependency="afterok$before")
  [ -z "${LEADS[i]}" ] || line+=(--signal="USR1@${LEADS[i]}")
  case ${words[0]} in
    data) line+=(${DATA_TASKS:+--array=0-$((DATA_TASKS - 1))}) job=(data.sbatch "${words[@]:2}") ;;
    pretrain | sft) line+=(${NODES:+--nodes=$NODES} ${GPUS:+--gpus-per-node=$GPUS}) job=(train.sbatch "${words[@]}") ;;
    delta) job=(room.sbatch "${words[@]}" --resume) ;;
    tools.*) line+=(${GPU[i]:+--gpus-per-node=${GPU[i]}} ${MEMORY[i]:+--mem=${MEMORY[i]}G}) job=(steps.sbatch "${words[@]}") ;;
    *) line+=(--gpus-per-node="${GPUS:-8}" --mem=0) job=(room.sbatch "${words[@]}") ;;
  esac
  line+=(${OPTIONS[@]+"${OPTIONS[@]}"} "configs/slurm/${job[0]}" "${job[@]:1}")
  printf '%q ' "${line[@]}"
  if [ -n "$DRY" ]; then
    JOBS[${NAMES[i]}]="ID-OF-${NAMES[i]}"
  else
    id=$("${line[@]}")
    JOBS[${NAMES[i]}]=${id%%;*}
    printf '# job %s' "${JOBS[${NAMES[i]}]}"
  fi
  echo
done
