"""Checks Kubernetes objects on standard input against the schemas of API versions, the arguments.

Prints a line for each object that is refused, and ends with 1 if there is one. What the version
itself has is checked by kubernetes-validate; what Prometheus Operator adds by cloudcoil's models of
it. Those leave out fields that they don't know, so that an object must come out as it went in.
"""

import sys

import yaml
from kubernetes_validate import validate

OPERATOR = "monitoring.coreos.com/v1"


def check(thing, version):
    if thing["apiVersion"] != OPERATOR:
        validate(thing, version, strict=True)
        return
    # Takes seconds, and few need it.
    from cloudcoil.models.prometheus_operator import v1 as operator

    model = getattr(operator, thing["kind"]).model_validate(thing)
    known = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if known != thing:
        raise ValueError(f"has fields that are unknown; known is {known}")


def main():
    refused = 0
    for thing in yaml.safe_load_all(sys.stdin):
        try:
            for version in sys.argv[1:]:
                check(thing, version)
        except Exception as error:
            reason = " ".join(str(getattr(error, "message", error)).split())
            path = ".".join(str(part) for part in getattr(error, "path", []))
            print(f"{thing.get('kind')} {thing['metadata']['name']}: {path}: {reason}")
            refused += 1
    sys.exit(1 if refused else 0)


main()
