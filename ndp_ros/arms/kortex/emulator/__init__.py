"""An arm that is not there: Kortex over real sockets, with the physics of MuJoCo behind it."""
