# The machines of this site; every variable is explained in terraform/openstack/variables.tf, pools in terraform/README.md.
# Flavors, images, zones and networks are called differently in every cloud: openstack flavor list, image list,
# availability zone list --compute, network list --external.
external_network = "public"
zones            = ["nova"]
image            = "debian-13"

# Another count makes or removes exactly the last nodes of the pool.
pools = {
  control = { classes = ["control"], count = 3, size = "m1.medium" }
  worker  = { classes = ["worker"], count = 2, size = "m1.large", labels = { disk = "ssd" } }
  edge    = { classes = ["edge"], count = 2, size = "m1.small" }
}

# Nodes have private addresses only: SSH comes through a bastion, and out they go by the router. "public" gives each a floating address instead.
access       = "bastion"
bastion_size = "m1.small"
