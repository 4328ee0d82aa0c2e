"""change.py [-n] [-t TYPE] [-r UUID] [-a WARNING]... NOTEBOOK IMAGE gives a
notebook another image."""

import argparse
import sys
import time
import uuid

import grpc

from notebookd import Service

# It may have begun, or begin at the next attempt.
PASSING = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


def main():
    parser = argparse.ArgumentParser(description="Gives a notebook another image.")
    parser.add_argument("-n", action="store_true", dest="plan", help="only show the plan: nothing is changed")
    parser.add_argument("-t", default="", dest="type", help="kind of image: official, user or custom on CoresHub, none elsewhere")
    parser.add_argument("-r", dest="id", help="id of the request: the same again is the same change, not another one")
    parser.add_argument("-a", action="append", default=[], dest="acknowledge", help="code of a warning of the plan that is accepted")
    parser.add_argument("notebook", help="its name, from list.py")
    parser.add_argument("image")
    args = parser.parse_args()

    if not args.id:
        args.id = str(uuid.uuid4())
        if not args.plan:
            print("request id:", args.id, flush=True)
    # It may be sent as often as one likes: the id makes it the same change.
    for attempt in range(1, 11):
        try:
            with Service() as service:
                if change(service, args):
                    return
        except grpc.RpcError as error:
            if error.code() not in PASSING:
                sys.exit(f"{error.code().name}: {error.details()}")
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            time.sleep(attempt)
    sys.exit(f"it has not ended yet; to ask again: -r {args.id}, with the same arguments")


def change(service, args):
    """Asks for the change, and reports whether it has ended."""
    try:
        answer = service.as_dict(service.ChangeImage(
            name=args.notebook, image=args.image, image_type=args.type, request_id=args.id,
            validate_only=args.plan, acknowledge=args.acknowledge, wait="30s", timeout=40))
    except grpc.RpcError as error:
        if error.code() in PASSING:
            raise
        print(f"{service.reason(error)}: {error.details()}", file=sys.stderr)
        for violation in service.details(error).get("PreconditionFailure", {}).get("violations", []):
            print(f"  {violation['type']}: {violation['description']}", file=sys.stderr)
        sys.exit(1)
    made, phase = answer["change"], answer["change"]["phase"].removeprefix("PHASE_")
    if phase == "PLANNED":
        print(made["fromImage"], "-> " + made["toImage"], sep="\n")
        for step in made.get("steps", []):
            print("  " + step)
        for warning in made.get("warnings", []):
            print(f"warning {warning['code']}: {warning['message']}")
    elif phase in ("SUCCEEDED", "UNCHANGED"):
        print(made["name"], phase)
        print(answer["notebook"]["name"], "has", answer["notebook"]["image"]["uri"])
    elif phase == "FAILED":
        sys.exit(f"{made['name']} FAILED: {made['failure']['message']}")
    else:
        print(phase + ": still under way", flush=True)  # ask again, at once: the server waits
        return False
    return True


if __name__ == "__main__":
    main()
