variable "site_folder" {
  description = "Folder of the site, with its 20-stack.yml. A relative one begins at the root's folder."
  type        = string
  nullable    = false
}

variable "bastion" {
  description = "Whether SSH comes through a bastion: then from there only, else from the site's networks.admin."
  type        = bool
  default     = false
  nullable    = false
}

variable "ssh_port" {
  description = "Port of the nodes' SSH servers."
  type        = number
  default     = 22
  nullable    = false
}

variable "edge_ports" {
  description = "TCP ports of the class edge that are open to anyone."
  type        = list(number)
  default     = [80, 443]
  nullable    = false
}

variable "repository" {
  description = "Folder of the collection, with roles/ and stacks/; null for the one this module lies in."
  type        = string
  default     = null
}

variable "network" {
  description = "CIDR of the nodes' network, which is held against the site's networks; null where the root makes none."
  type        = string
  default     = null
}

variable "gateways" {
  description = "What reaches nodes from beside them -> its CIDR: bastions, load balancers that ask for health. The nodes' own firewall lets it in only if networks.admin holds it."
  type        = map(string)
  default     = {}
  nullable    = false
}
