#!/bin/bash

# Parameters
#SBATCH --array=0-999%32
#SBATCH --cpus-per-task=8
#SBATCH --job-name=w1-0123456789ab
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=2304M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/me/store/batches/w1-0123456789ab/log-%a
#SBATCH --partition=cpu
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --time=12

# command
export SUBMITIT_EXECUTOR=slurm
export PYTHONPATH=/scratch/me/store/code/0f1e2d3c
cd /scratch/me/store || exit 1
exec /opt/venv/bin/python -P -m workers /scratch/me/store w1-0123456789ab/"$SLURM_ARRAY_TASK_ID"
