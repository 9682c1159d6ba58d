"""How the tokens of a batch spread over the experts: expected values, each token choosing its experts at random.

Assumption: all experts are equally likely. Real routers are uneven, and then hit fewer experts with more tokens each.
Only + - * / and exactly rounded sums are used, so that the results are the same bits on every machine and Python.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

# Terms of the distribution that are this much smaller than the largest one are left out.
_NEGLIGIBLE = 1e-18


@dataclass(frozen=True)
class Spread:
    """pairs: (token, expert) pairs; experts: distinct experts hit; blocks: blocks of BLOCK_SIZE_M rows."""

    pairs: int
    experts: float
    blocks: float

    def padding(self, block_m: int) -> float:
        """Rows computed for each row that is needed, 1 or more."""
        return self.blocks * block_m / self.pairs


@cache
def tokens_of_an_expert(tokens: int, top_k: int, experts: int) -> tuple[float, ...]:
    """The probability that an expert gets 0, 1, 2 ... of the tokens: binomial with p = top_k / experts."""
    p = top_k / experts
    if p >= 1:
        return (*[0.0] * tokens, 1.0)
    # From the likeliest count outwards: starting at 0 would underflow.
    likeliest = int((tokens + 1) * p)
    weights = {likeliest: 1.0}
    weight, count = 1.0, likeliest
    while count < tokens and weight > _NEGLIGIBLE:
        weight *= (tokens - count) / (count + 1) * (p / (1 - p))
        count += 1
        weights[count] = weight
    weight, count = 1.0, likeliest
    while count > 0 and weight > _NEGLIGIBLE:
        weight *= count / (tokens - count + 1) * ((1 - p) / p)
        count -= 1
        weights[count] = weight
    total = math.fsum(weights.values())
    return tuple(weights.get(count, 0.0) / total for count in range(max(weights) + 1))


@cache
def spread(tokens: int, top_k: int, experts: int, shared: int, block_m: int) -> Spread:
    """The expected spread of a batch.

    top_k and experts: of the routed experts; shared: shared experts that are fused, each of which gets every token.
    """
    chances = tokens_of_an_expert(tokens, top_k, experts)
    blocks = math.fsum(chance * -(-count // block_m) for count, chance in enumerate(chances))
    return Spread(
        pairs=tokens * (top_k + shared),
        experts=experts * (1 - chances[0]) + shared,
        blocks=experts * blocks + shared * -(-tokens // block_m),
    )
