# What the site is stands in its 20-stack.yml; what its machines are stands here, in a .tfvars file of the site (inventories/aws/machines.tfvars).

variable "site_folder" {
  description = "Folder of the site, with its 20-stack.yml. A relative one begins at this root."
  type        = string
  default     = "../../inventories/aws"
  nullable    = false
}

variable "region" {
  description = "Region of AWS."
  type        = string
  default     = "eu-central-1"
  nullable    = false
}

variable "zones" {
  description = "Availability zones that nodes are spread over. Append to it, never reorder: a zone's place gives its networks."
  type        = list(string)
  default     = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  nullable    = false

  validation {
    condition     = length(var.zones) >= 1 && length(var.zones) <= 7
    error_message = "zones names ${length(var.zones)} zones. Allowed: 1 to 7, for which the network has room."
  }
}

variable "pools" {
  description = "Pool name -> its nodes: classes, count, size, and optionally zones, labels, disk_gib, volumes (name, size_gib, type), public, image. terraform/README.md explains it."
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
    control = { classes = ["control"], count = 3, size = "t3.medium" }
    worker  = { classes = ["worker"], count = 2, size = "t3.large" }
    edge    = { classes = ["edge"], count = 2, size = "t3.small", disk_gib = 20 }
  }
}

variable "image" {
  description = "AMI of new nodes, a Debian or Ubuntu with cloud-init. Null: the newest Debian 13 for x86-64. Nodes that exist keep theirs."
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
  description = "IPv4 network of the machines, a /16. Its first /20 is for bastion, NAT and load balancers."
  type        = string
  default     = "10.20.0.0/16"
  nullable    = false

  validation {
    condition     = can(regex("/16$", var.network_cidr))
    error_message = "network_cidr is ${jsonencode(var.network_cidr)}. Allowed: an IPv4 network with a prefix length of 16, for example 10.20.0.0/16."
  }
}

variable "access" {
  description = "How nodes are reached and reach others. bastion: they have private addresses only, SSH goes through a bastion, out they go by NAT. public: each has a public address. Decided when a node is made."
  type        = string
  default     = "bastion"
  nullable    = false

  validation {
    condition     = contains(["bastion", "public"], var.access)
    error_message = "access is ${jsonencode(var.access)}. Allowed: bastion, public."
  }
}

variable "bastion_size" {
  description = "Instance type of the bastion."
  type        = string
  default     = "t3.micro"
  nullable    = false
}

variable "nat_per_zone" {
  description = "Whether each zone has a NAT gateway of its own, so that the loss of one zone leaves the others their way out. Each costs."
  type        = bool
  default     = false
  nullable    = false
}

variable "edge_load_balancer" {
  description = "Whether a load balancer stands in front of the nodes of the class edge, where there are any."
  type        = bool
  default     = true
  nullable    = false
}

variable "api_load_balancer" {
  description = "Whether a load balancer stands in front of the API servers; networks.admin of the site may reach it."
  type        = bool
  default     = false
  nullable    = false
}

variable "dns_zone" {
  description = "Name of a hosted zone of Route 53 that the site's domain lies in; api.<domain> and *.<domain> are written there. Null: no DNS."
  type        = string
  default     = null
}

variable "control_spread" {
  description = "Whether control nodes of one zone stand on different hardware (a spread placement group: at most 7 a zone)."
  type        = bool
  default     = true
  nullable    = false
}

variable "kms_key" {
  description = "ARN of the KMS key that disks and volumes are encrypted with. Null: the account's own key for EBS."
  type        = string
  default     = null
}

variable "snapshot_volumes" {
  description = "Whether a snapshot is taken of every data volume before it is destroyed. It stays, and costs, until it is deleted by hand."
  type        = bool
  default     = false
  nullable    = false
}

variable "tags" {
  description = "Tags of everything that is made, besides the site's own."
  type        = map(string)
  default     = {}
  nullable    = false
}
