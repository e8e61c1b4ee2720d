#!/bin/sh
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=4
# One image on the GPUs of several machines under Slurm: a process per machine, which has all GPUs
# of it. `sbatch docs/deploy/one-image.sh --model sdxl --prompt "a red house"`
# With torchrun, on each machine, HEAD being the first one's address, and with the same
# BASEDXL_SECRET in the environment:
#   torchrun --no-python --nnodes 2 --nproc-per-node 1 --node-rank N --master-addr HEAD \
#     --master-port 29500 basedxl sample --gpus 4 --model sdxl --prompt "a red house"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=29500 WORLD_SIZE="$SLURM_NNODES"
# Whoever else reaches the port cannot take a rank's place.
BASEDXL_SECRET=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export BASEDXL_SECRET
srun sh -c 'RANK=$SLURM_NODEID exec basedxl sample --gpus 4 "$@"' one-image "$@"
