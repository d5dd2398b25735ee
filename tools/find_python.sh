#!/bin/sh
# Print the path of a Python of version $1, such as 3.12, or fail if there is none.
for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if path=$(command -v "$candidate") &&
        "$path" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
        "$path" -c 'import sys; print(sys.executable)'
        exit 0
    fi
done
exit 1
