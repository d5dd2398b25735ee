# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

# Makes the ROS wheels usable as a build environment; unused where ROS 2 is installed.

# The rosidl generators look for type supports in AMENT_PREFIX_PATH, which nothing sets for wheels.
find_package(ament_cmake_core REQUIRED)
get_filename_component(_wheels_prefix "${ament_cmake_core_DIR}/../../.." ABSOLUTE)
set(ENV{AMENT_PREFIX_PATH} "${_wheels_prefix}")

# Exported targets name the Python headers of the machine that built the wheels; CMake refuses
# include directories that do not exist, so they are taken out once all targets are imported.
function(_drop_foreign_python_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(includes ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(includes)
      list(FILTER includes EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${includes}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL _drop_foreign_python_includes)
