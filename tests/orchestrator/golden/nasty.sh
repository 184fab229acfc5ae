#!/bin/bash

# Parameters
#SBATCH --account='a'"'"'; touch x; $(touch y) `touch z` # "q" %j'
#SBATCH --array=0-2%3
#SBATCH --comment='a'"'"'; touch x; $(touch y) `touch z` # "q" %j'
#SBATCH --cpus-per-task=8
#SBATCH --exclude='a'"'"'; touch x; $(touch y) `touch z` # "q" %j'
#SBATCH --job-name=w1-0123456789ab
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-user='a'"'"'; touch x; $(touch y) `touch z` # "q" %j'
#SBATCH --mem=2304M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/scratch/a'"'"'; touch x; $(touch y) `touch z` # "q" %%j/batches/w1-0123456789ab/log-%a'
#SBATCH --partition='a'"'"'; touch x; $(touch y) `touch z` # "q" %j'
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --time=12

# command
export SUBMITIT_EXECUTOR=slurm
export PYTHONPATH=/scratch/me/store/code/0f1e2d3c
cd '/scratch/a'"'"'; touch x; $(touch y) `touch z` # "q" %j' || exit 1
exec run 'a'"'"'; touch x; $(touch y) `touch z` # "q" %j' '/opt/a'"'"'; touch x; $(touch y) `touch z` # "q" %j/python' -P -m workers '/scratch/a'"'"'; touch x; $(touch y) `touch z` # "q" %j' w1-0123456789ab/"$SLURM_ARRAY_TASK_ID"
