# What the site is stands in its 20-stack.yml; what its machines are stands here, in a .tfvars file of the site (inventories/openstack/machines.tfvars).

variable "site_folder" {
  description = "Folder of the site, with its 20-stack.yml. A relative one begins at this root."
  type        = string
  default     = "../../inventories/openstack"
  nullable    = false
}

variable "cloud" {
  description = "Name of the cloud in clouds.yaml. Null: OS_CLOUD, or the other OS_* variables."
  type        = string
  default     = null
}

variable "region" {
  description = "Region. Null: that of clouds.yaml or OS_REGION_NAME."
  type        = string
  default     = null
}

variable "external_network" {
  description = "Name of the network outside, to which the router leads and from which floating addresses are taken."
  type        = string
  default     = "public"
  nullable    = false
}

variable "zones" {
  description = "Availability zones of compute that nodes are spread over (openstack availability zone list --compute). Append to it, do not reorder."
  type        = list(string)
  default     = ["nova"]
  nullable    = false
}

variable "volume_zones" {
  description = "Availability zone of compute -> that of its volumes, in clouds where volumes have zones of their own. For a zone that is not in it the cloud decides."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "pools" {
  description = "Pool name -> its nodes: classes, count, size (a flavor), and optionally zones, labels, disk_gib (with boot_volume), volumes (name, size_gib, type), public, image. terraform/README.md explains it."
  nullable    = false
  type = map(object({
    classes  = list(string)
    count    = number
    size     = string
    zones    = optional(list(string))
    labels   = optional(map(string), {})
    disk_gib = optional(number, 50)
    volumes = optional(list(object({
      name     = string
      size_gib = number
      type     = optional(string)
    })), [])
    public = optional(bool, false)
    image  = optional(string)
  }))
  default = {
    control = { classes = ["control"], count = 3, size = "m1.medium" }
    worker  = { classes = ["worker"], count = 2, size = "m1.large" }
    edge    = { classes = ["edge"], count = 2, size = "m1.small" }
  }
}

variable "image" {
  description = "Image of new nodes, its name or its id, a Debian or Ubuntu with cloud-init. Of several of one name the newest. Nodes that exist keep theirs."
  type        = string
  default     = "debian-13"
  nullable    = false
}

variable "boot_volume" {
  description = "Whether a new node's system disk is a volume of disk_gib, rather than the flavor's own disk on the hypervisor."
  type        = bool
  default     = false
  nullable    = false
}

variable "volume_type" {
  description = "Type of volumes that name none (openstack volume type list). Where the cloud has an encrypted one, take that. Null: the cloud's default."
  type        = string
  default     = null
}

variable "user" {
  description = "User that Ansible comes as."
  type        = string
  default     = "ashlar"
  nullable    = false
}

variable "ssh_public_key" {
  description = "File of Ansible's SSH public key. Null: credentials/ssh/id_ed25519.pub of the site."
  type        = string
  default     = null
}

variable "network_cidr" {
  description = "IPv4 network of the machines, a /16. Its first /20 is for the bastion and load balancers, its second half for nodes."
  type        = string
  default     = "10.20.0.0/16"
  nullable    = false

  validation {
    condition     = can(regex("/16$", var.network_cidr))
    error_message = "network_cidr is ${jsonencode(var.network_cidr)}. Allowed: an IPv4 network with a prefix length of 16, for example 10.20.0.0/16."
  }
}

variable "dns_nameservers" {
  description = "Name servers that nodes ask. None: the cloud's own."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "access" {
  description = "How nodes are reached. bastion: they have private addresses only, and SSH goes through a bastion. public: each has a floating address. Out they go by the router's NAT."
  type        = string
  default     = "bastion"
  nullable    = false

  validation {
    condition     = contains(["bastion", "public"], var.access)
    error_message = "access is ${jsonencode(var.access)}. Allowed: bastion, public."
  }
}

variable "bastion_size" {
  description = "Flavor of the bastion."
  type        = string
  default     = "m1.small"
  nullable    = false
}

variable "edge_load_balancer" {
  description = "Whether a load balancer of Octavia stands in front of the nodes of the class edge, where there are any."
  type        = bool
  default     = false
  nullable    = false
}

variable "api_load_balancer" {
  description = "Whether a load balancer of Octavia stands in front of the API servers; networks.admin of the site may reach it."
  type        = bool
  default     = false
  nullable    = false
}

variable "dns_zone" {
  description = "Name of a zone of Designate that the site's domain lies in; api.<domain> and *.<domain> are written there. Null: no DNS."
  type        = string
  default     = null
}

variable "control_spread" {
  description = "Whether control nodes stand on different hypervisors as far as there are enough (a server group with soft anti-affinity)."
  type        = bool
  default     = true
  nullable    = false
}

variable "tags" {
  description = "Tags of networks, ports, security groups and floating addresses, besides the site's own."
  type        = list(string)
  default     = []
  nullable    = false
}
