#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=1
#SBATCH --dependency=afterany:4711
#SBATCH --job-name=w1-0123456789ab-tick
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=1024M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/me/store/batches/w1-0123456789ab/tick-log
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=10

# command
export SUBMITIT_EXECUTOR=slurm
export PYTHONPATH=/scratch/me/store/code/0f1e2d3c
cd /scratch/me/store || exit 1
exec /opt/venv/bin/python -P -m orchestrator tick --root /scratch/me/store --settle
