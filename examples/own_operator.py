"""An operator of your own in the recursion: a running mean over the positions before, gated, and a few training steps.

python examples/own_operator.py
"""

import torch
from torch import Tensor, nn

from modeling_trm import OPERATORS, TRMConfig, TRMForGridReasoning
from modeling_trm.layers_trm import Operator


class RunningMean(Operator):
    """[B, L, D] -> [B, L, D]: the mean of all positions so far, gated by each position."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        count_L1 = torch.arange(1, x_BLD.shape[1] + 1, device=x_BLD.device)[:, None]
        return self.out(torch.sigmoid(self.gate(x_BLD)) * x_BLD.cumsum(1) / count_L1)


OPERATORS["running_mean"] = RunningMean

torch.manual_seed(0)
config = TRMConfig(
    block_operators=["running_mean", "mlp"], vocab_size=6, seq_len=16, hidden_size=32, num_attention_heads=4,
    puzzle_prefix_len=0, H_cycles=1, L_cycles=2,
)  # fmt: skip
model = TRMForGridReasoning(config)
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
puzzles = torch.randint(2, 6, (32, 16))
for step in range(1, 21):
    loss = model(input_ids=puzzles, labels=puzzles).loss
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if step % 5 == 0:
        print(step, round(loss.item(), 3))
