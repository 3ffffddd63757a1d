# What the site is stands in its 20-stack.yml; what its machines are stands here, in a .tfvars file of the site (inventories/gce/machines.tfvars).

variable "site_folder" {
  description = "Folder of the site, with its 20-stack.yml. A relative one begins at this root."
  type        = string
  default     = "../../inventories/gce"
  nullable    = false
}

variable "project" {
  description = "Project of Google Cloud. Null: the one of GOOGLE_PROJECT or of the credentials."
  type        = string
  default     = null
}

variable "region" {
  description = "Region of Google Cloud."
  type        = string
  default     = "europe-west3"
  nullable    = false
}

variable "zones" {
  description = "Zones of the region that nodes are spread over. Append to it, do not reorder."
  type        = list(string)
  default     = ["europe-west3-a", "europe-west3-b", "europe-west3-c"]
  nullable    = false
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
    control = { classes = ["control"], count = 3, size = "e2-medium" }
    worker  = { classes = ["worker"], count = 2, size = "e2-standard-2" }
    edge    = { classes = ["edge"], count = 2, size = "e2-small", disk_gib = 20 }
  }
}

variable "image" {
  description = "Image or image family of new nodes, a Debian or Ubuntu with Google's guest agent. Nodes that exist keep theirs."
  type        = string
  default     = "debian-cloud/debian-13"
  nullable    = false
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
  description = "IPv4 network of the machines, a /16. Its first /20 is for the bastion, its second half for nodes."
  type        = string
  default     = "10.20.0.0/16"
  nullable    = false

  validation {
    condition     = can(regex("/16$", var.network_cidr))
    error_message = "network_cidr is ${jsonencode(var.network_cidr)}. Allowed: an IPv4 network with a prefix length of 16, for example 10.20.0.0/16."
  }
}

variable "access" {
  description = "How nodes are reached and reach others. bastion: they have private addresses only, SSH goes through a bastion, out they go by NAT. public: each has a public address."
  type        = string
  default     = "bastion"
  nullable    = false

  validation {
    condition     = contains(["bastion", "public"], var.access)
    error_message = "access is ${jsonencode(var.access)}. Allowed: bastion, public."
  }
}

variable "bastion_size" {
  description = "Machine type of the bastion."
  type        = string
  default     = "e2-micro"
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
  description = "Name of a managed zone of Cloud DNS that the site's domain lies in; api.<domain> and *.<domain> are written there. Null: no DNS."
  type        = string
  default     = null
}

variable "control_spread" {
  description = "Whether control nodes stand in different availability domains within a zone too (a spread placement policy). Not every machine type takes part in one, so it is off; zones spread them already."
  type        = bool
  default     = false
  nullable    = false
}

variable "kms_key" {
  description = "Self link of the Cloud KMS key that disks are encrypted with; Compute Engine's service agent must be allowed to use it. Null: Google's own keys."
  type        = string
  default     = null
}

variable "snapshot_volumes" {
  description = "Whether a snapshot is taken of every data volume before it is destroyed. It stays, and costs, until it is deleted by hand."
  type        = bool
  default     = false
  nullable    = false
}

variable "labels" {
  description = "Labels of everything that can have some, besides the site's own."
  type        = map(string)
  default     = {}
  nullable    = false
}
