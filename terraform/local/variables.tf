variable "site_folder" {
  description = "Folder of the site, with its 20-stack.yml; a relative one begins here. What is remembered of nodes goes to its state/, keys to its credentials/."
  type        = string
  default     = "../../inventories/tofu"
  nullable    = false
}

variable "pools" {
  description = "Pool name -> what its nodes are. Nodes are numbered from 1; another count never touches another node."
  nullable    = false
  type = map(object({
    classes = list(string)
    count   = number
    zones   = optional(list(string))
    labels  = optional(map(string), {})
  }))
}

variable "zones" {
  description = "Failure domains that nodes are spread over. On one machine they are names only."
  type        = list(string)
  default     = ["local"]
  nullable    = false
}

variable "network" {
  description = "IPv4 network of the nodes, /20 or larger; null for one of 10.64.0.0/12 by the name of the site."
  type        = string
  default     = null

  validation {
    condition     = var.network == null || (can(cidrsubnet(var.network, 0, 0)) && try(cidrsubnet(var.network, 0, 0) == var.network && tonumber(split("/", var.network)[1]) <= 20, false))
    error_message = "network is ${jsonencode(var.network)}. Allowed: an IPv4 network of at most /20 in CIDR notation, such as 10.64.16.0/20, or null."
  }
}
