"""The off-policy learners, which need torch: soft actor-critic, and Dyn-E (TD3 in an embedding)."""
