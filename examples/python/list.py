"""list.py [FILTER] prints all notebooks that match, for example
list.py 'state = RUNNING AND resources.accelerator.count >= 1'"""

import sys

import grpc

from notebookd import Service


def notebooks(service, filter):
    """All notebooks that match, a page at a time."""
    token = ""
    while True:
        # The token of the next page goes with the same filter.
        page = service.as_dict(service.List(filter=filter, page_token=token, timeout=20))
        if not token:
            # Clouds that are down fail nothing: their notebooks are shown as last known.
            for location in page.get("unreachable", []):
                print("cannot be reached now:", location, file=sys.stderr)
        yield from page.get("notebooks", [])
        token = page.get("nextPageToken")
        if not token:
            return


def main():
    with Service() as service:
        count = 0
        try:
            for n in notebooks(service, sys.argv[1] if len(sys.argv) > 1 else ""):
                # A field that is not set is not in the dict.
                state = n.get("state", "STATE_?").removeprefix("STATE_")
                print(n["name"], state, n.get("image", {}).get("uri", "-"))
                count += 1
        except grpc.RpcError as error:
            sys.exit(f"{service.reason(error)}: {error.details()}")
        print(count, "notebooks")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:  # it could not even be asked for its contract
        sys.exit(f"{error.code().name}: {error.details()}")
