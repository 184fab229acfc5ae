#!/bin/bash

# Parameters
#SBATCH --account=physics
#SBATCH --array=0-6%7
#SBATCH --constraint='icelake&ib'
#SBATCH --cpus-per-task=8
#SBATCH --exclude=n3,n7,n8
#SBATCH --exclusive
#SBATCH --gres=gpu:a100:2,lscratch:20
#SBATCH --job-name=w1-0123456789ab
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=FAIL
#SBATCH --mail-user=me@uni.example
#SBATCH --mem=2304M
#SBATCH --nice=10
#SBATCH --nodelist='n[1-9]'
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/me/store/batches/w1-0123456789ab/log-%a
#SBATCH --partition=gpu,gpu-long
#SBATCH --qos=normal
#SBATCH --requeue
#SBATCH --reservation=school
#SBATCH --signal=B:USR1@91
#SBATCH --time=12

# setup
module purge
module load cuda/12.4
source "$HOME/venvs/entk/bin/activate"

# command
export SUBMITIT_EXECUTOR=slurm
export PYTHONPATH=/scratch/me/store/code/0f1e2d3c
cd /scratch/me/store || exit 1
exec /opt/venv/bin/python -P -m workers /scratch/me/store w1-0123456789ab/"$SLURM_ARRAY_TASK_ID"
