"""What must hold on booted hosts, named after what goes wrong. A check reads a host with plain ssh and curl."""
