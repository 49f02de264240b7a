#!/bin/bash
# A training run on machines of a SLURM cluster, as one job that goes on where it stopped:
#
#   sbatch recipes/slurm.sh recipes/scenes.yaml /shared/runs/scenes --train.lr 1e-3
#
# Change the lines below to your cluster. The folder of the run, the recipe and the data must be seen by all machines.
# What comes after the folder goes to `garnish train`. docs/machines.md says what happens when something dies.
#
#SBATCH --job-name=garnish
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --output=garnish-%j.txt
#SBATCH --open-mode=append
# this script, and nothing else, gets USR1 two minutes before the time is over
#SBATCH --signal=B:USR1@120
# SLURM itself starts the job anew, under the same id, when a machine fails
#SBATCH --requeue

set -u
if (($# < 2)); then
    echo "usage: sbatch slurm.sh RECIPE FOLDER [options of garnish train]" >&2
    exit 2
fi
recipe=$1 folder=$2
shift 2

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# the id stays when the job is started anew, so garnish finds its run by it; the port is one that other jobs have not
srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 \
    torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$first:$((20000 + SLURM_JOB_ID % 20000))" --rdzv-id "$SLURM_JOB_ID" \
    -m garnish train --config "$recipe" --out "$folder" "$@" &
step=$!

# torchrun hands SIGTERM to its processes, of which all end after the same step with a checkpoint, within 30 seconds.
# scancel sends it to what srun started, and not to this script.
asked=
stop() {
    asked=$1
    scancel --signal=TERM "$SLURM_JOB_ID"
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM

# a signal ends `wait` too, so wait until the step has ended
while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done

if [[ $asked == USR1 && $code != 0 ]]; then
    echo "the time is over: job $SLURM_JOB_ID starts anew and goes on" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
