"""The offline side: roll-outs, PPO, evaluation and experiments."""
