"""The present, folded from facts: projections, the projector that keeps them fresh, and the queries on them."""
