"""Train the class-conditional flow-matching DiT of models/digits.safetensors.

    pip install -r requirements.txt
    python train_digits.py --out run            # about 20 minutes on two CPU cores
    cp run/step005000.safetensors digits.safetensors

The held-out loss stops falling after 5,000 of the 8,000 scheduled steps, while the training
loss falls on; the weights of step 5,000 are the ones kept.

Every random number comes from one seed, but another machine or thread count rounds sums
differently, so its weights drift away from the published ones. The published weights come
from one run; the spread of the figures between runs was not measured. A line of figures
goes to the log every --report steps, and the exponential moving average of the weights is
written each time, so the run can be stopped at any moment.

Recipe: flow matching with the straight path x_t = (1 - t) x0 + t noise (Lipman et al. 2023;
Liu et al. 2023), velocity target noise - x0, logit-normal times (Esser et al. 2024),
classifier-free guidance by label dropout (Ho & Salimans 2022), AdamW, linear warm-up and
cosine decay, EMA.
"""

import argparse
import copy
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from digits_data import load_split
from dit import DiT, flow_sample
from evaluate_digits import measure, write_grid

# What the demo uses; chosen with evaluate_digits.py after a first training run (which
# reported its figures at guidance 1.5; that changes the log, not the weights).
SAMPLER = {"solver": "heun", "steps": 16, "guidance": 1.0, "shift": 1.0}


def save(model, path):
    meta = model.metadata()
    meta.update({
        "process": "flow",
        "prediction": "velocity",
        "class_names": ",".join(str(c) for c in range(10)),
    })
    meta.update({f"sampler.{key}": format(value, "g") if not isinstance(value, str) else value
                 for key, value in SAMPLER.items()})
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, path + ".part", metadata=meta)
    os.replace(path + ".part", path)  # a reader never sees half a file


def augment(x, generator, share, shift, scale):
    """Slightly shifted and stretched copies of a share of the images, background outside."""
    b = len(x)
    pick = torch.rand(b, generator=generator) < share
    move = (torch.rand(b, 2, generator=generator) * 2 - 1) * (shift / 4)  # 1 pixel = 1/4
    zoom = 1 + (torch.rand(b, 2, generator=generator) * 2 - 1) * scale
    turn = (torch.rand(b, generator=generator) * 2 - 1) * (2 * scale)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = zoom[:, 0] * turn.cos(), -zoom[:, 0] * turn.sin()
    theta[:, 1, 0], theta[:, 1, 1] = zoom[:, 1] * turn.sin(), zoom[:, 1] * turn.cos()
    theta[:, :, 2] = move
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    # grid_sample fills with zeros; the background is -1, so sample x + 1.
    moved = F.grid_sample(x + 1, grid, align_corners=False) - 1
    return torch.where(pick[:, None, None, None], moved, x)


@torch.no_grad()
def flow_loss(model, x, y, seed=7, repeats=4):
    """Mean flow-matching loss at fixed noise and evenly spread times."""
    g = torch.Generator().manual_seed(seed)
    total = 0.0
    for r in range(repeats):
        t = (torch.arange(len(x)) + 0.5) / len(x)
        t = t[torch.randperm(len(x), generator=g)]
        noise = torch.randn(x.shape, generator=g)
        xt = (1 - t)[:, None, None, None] * x + t[:, None, None, None] * noise
        total += F.mse_loss(model(xt, t, y), noise - x).item()
    return total / repeats


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for checkpoints and the log")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--label-dropout", type=float, default=0.1)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--augment", type=float, default=0.0, help="share of augmented images")
    parser.add_argument("--shift", type=float, default=0.4, help="largest shift in pixels")
    parser.add_argument("--scale", type=float, default=0.06, help="largest relative stretch")
    parser.add_argument("--report", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    train_x, train_y, held_x, held_y = load_split()
    train_x, held_x = (torch.from_numpy(v).reshape(-1, 1, 8, 8) for v in (train_x, held_x))
    train_y, held_y = torch.from_numpy(train_y), torch.from_numpy(held_y)

    model = DiT(dropout=args.dropout)
    average = copy.deepcopy(model).eval()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters; "
          f"{len(train_x)} training and {len(held_x)} held-out images", flush=True)
    # Decay matrices only: biases and the label table have nothing to shrink towards.
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in trained if p.ndim > 1 and "embedding_table" not in n]
    others = [p for n, p in trained if not (p.ndim > 1 and "embedding_table" not in n)]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": args.weight_decay},
         {"params": others, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.99), fused=True)
    g = torch.Generator().manual_seed(args.seed + 1)

    start, seen, loss_sum = time.time(), 0, 0.0
    mark = start
    for step in range(1, args.steps + 1):
        rate = min(1.0, step / args.warmup) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * max(rate, 0.01)
        pick = torch.randint(len(train_x), (args.batch,), generator=g)
        x, y = train_x[pick], train_y[pick]
        if args.augment > 0:
            x = augment(x, g, args.augment, args.shift, args.scale)
        t = torch.sigmoid(torch.randn(args.batch, generator=g))
        noise = torch.randn(x.shape, generator=g)
        drop = torch.rand(args.batch, generator=g) < args.label_dropout
        y = torch.where(drop, torch.full_like(y, model.num_classes), y)
        xt = (1 - t)[:, None, None, None] * x + t[:, None, None, None] * noise
        loss = F.mse_loss(model(xt, t, y), noise - x)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], 1.0)
        optimizer.step()
        with torch.no_grad():
            # The warm-up of the decay lets the average follow the fast first steps.
            decay = min(args.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_([p for p in average.parameters() if p.dtype.is_floating_point],
                                 list(model.parameters()), 1 - decay)
        loss_sum, seen = loss_sum + loss.item(), seen + 1

        if step % args.report == 0 or step == args.steps:
            save(average, os.path.join(args.out, "digits.safetensors"))
            save(average, os.path.join(args.out, f"step{step:06d}.safetensors"))
            labels = torch.arange(10).repeat_interleave(40)
            z = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(5))
            x = flow_sample(average, z, labels, **SAMPLER).flatten(1).numpy()
            m = measure(x, labels.numpy(), draws=1)
            ratio = m["near"] / m["near_held"]
            print(f"step {step} {(time.time() - mark) / seen:.3f} s/step {time.time() - start:.0f} s "
                  f"loss {loss_sum / seen:.4f} "
                  f"train {flow_loss(average, train_x[:397], train_y[:397]):.4f} "
                  f"held {flow_loss(average, held_x, held_y):.4f} | "
                  f"knn {m['accuracy']:.3f} ratio {ratio[0]:.2f} {ratio[1]:.2f} {ratio[2]:.2f} "
                  f"recall {min(m['recall']):.2f} {np.mean(m['recall']):.3f} "
                  f"precision {np.mean(m['precision']):.3f}", flush=True)
            write_grid(os.path.join(args.out, "grid.png"), x, labels.numpy())
            seen, loss_sum, mark = 0, 0.0, time.time()


if __name__ == "__main__":
    main()
