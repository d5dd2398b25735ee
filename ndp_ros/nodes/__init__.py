"""The ROS 2 nodes; rclpy is imported here and in ``arms/ros2_control.py`` alone."""
