"""Keeps a port of Ray Serve's replicas on this machine."""

_EVERY_INTERFACE = "[::]"


def keep_replica_port_on_loopback() -> None:
    """Make the gRPC server of this process's replica listen on 127.0.0.1.

    Ray 2.60 opens it on all interfaces, has no option for it, and the server unpickles what it
    receives without a token: whoever reaches the port could run code. Called in the constructor of
    a deployment, which Ray runs before it opens the port.
    """
    from ray.serve._private import replica

    add_port = replica.add_port_to_grpc_server

    def add_loopback_port(server: object, address: str) -> int:
        return int(add_port(server, address.replace(_EVERY_INTERFACE, "127.0.0.1")))

    replica.add_port_to_grpc_server = add_loopback_port
