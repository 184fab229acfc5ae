#!/bin/bash

# Parameters
#SBATCH --account=physics
#SBATCH --cpus-per-task=1
#SBATCH --dependency=afterany:4711
#SBATCH --job-name=w1-0123456789ab-tick
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=1024M
#SBATCH --nice=10
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/me/store/batches/w1-0123456789ab/tick-log
#SBATCH --partition=gpu,gpu-long
#SBATCH --qos=normal
#SBATCH --requeue
#SBATCH --reservation=school
#SBATCH --signal=USR2@90
#SBATCH --time=10

# setup
module purge
module load cuda/12.4
source "$HOME/venvs/entk/bin/activate"

# command
export SUBMITIT_EXECUTOR=slurm
export PYTHONPATH=/scratch/me/store/code/0f1e2d3c
cd /scratch/me/store || exit 1
exec /opt/venv/bin/python -P -m orchestrator tick --root /scratch/me/store --settle
