# The checks of .ci/run by name, for those who have `just`; `.ci/run NAME` does the same.

# Lists what there is.
default:
    @just --list

# Every check, as a merge needs it.
all:
    .ci/run

# The formatting.
fmt:
    .ci/run fmt

# The lints, as errors.
clippy:
    .ci/run clippy

# The library without the program.
library:
    .ci/run library

# The oldest Rust that is promised.
msrv:
    .ci/run msrv

# The documentation and its links.
doc:
    .ci/run doc

# Licences, sources and second versions of dependencies, and advisories where they can be fetched.
deny:
    .ci/run deny

# All tests, with the servers and clients they need.
test:
    .ci/run test
