# The machines of this site; every variable is explained in terraform/aws/variables.tf, pools in terraform/README.md.
region = "eu-central-1"
zones  = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]

# Another count makes or removes exactly the last nodes of the pool.
pools = {
  control = { classes = ["control"], count = 3, size = "t3.medium" }
  worker  = { classes = ["worker"], count = 2, size = "t3.large", labels = { disk = "ssd" } }
  edge    = { classes = ["edge"], count = 2, size = "t3.small", disk_gib = 20 }
}

# Nodes have private addresses only: SSH comes through a bastion, and out they go by one NAT gateway. "public" saves both.
access = "bastion"
