# The machines of this site; every variable is explained in terraform/gce/variables.tf, pools in terraform/README.md.
region = "europe-west3"
zones  = ["europe-west3-a", "europe-west3-b", "europe-west3-c"]

# Another count makes or removes exactly the last nodes of the pool.
pools = {
  control = { classes = ["control"], count = 3, size = "e2-medium" }
  worker  = { classes = ["worker"], count = 2, size = "e2-standard-2", labels = { disk = "ssd" } }
  edge    = { classes = ["edge"], count = 2, size = "e2-small", disk_gib = 20 }
}

# Nodes have private addresses only: SSH comes through a bastion, and out they go by Cloud NAT. "public" saves both.
access = "bastion"
