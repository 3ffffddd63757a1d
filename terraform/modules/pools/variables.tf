variable "site" {
  description = "Name of the site, as in its 20-stack.yml; node names begin with it."
  type        = string
  nullable    = false
}

variable "zones" {
  description = "Failure domains that nodes are spread over: node n of a pool stands in zone (n - 1) modulo their number. Append to it, do not reorder."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.zones) > 0 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones is ${jsonencode(var.zones)}. Allowed: at least one zone, each named once."
  }
}

variable "pools" {
  description = "Pool name -> what its nodes are. A pool's `zones` come before the site's."
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

  validation {
    condition     = alltrue([for name, pool in var.pools : can(regex("^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$", name))])
    error_message = "Pool ${join(", ", [for name, pool in var.pools : jsonencode(name) if !can(regex("^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$", name))])} is no name of a pool. Allowed: 1 to 30 small letters, digits and hyphens, a letter first and no hyphen last."
  }

  validation {
    condition = alltrue([for pool in var.pools : (
      length(pool.classes) > 0 && length(distinct(pool.classes)) == length(pool.classes) && length(setsubtract(pool.classes, ["control", "worker", "edge", "storage"])) == 0
    )])
    error_message = "classes of pool ${join(", ", [for name, pool in var.pools : "${name} is ${jsonencode(pool.classes)}" if length(pool.classes) == 0 || length(distinct(pool.classes)) != length(pool.classes) || length(setsubtract(pool.classes, ["control", "worker", "edge", "storage"])) > 0])}. Allowed: one or more of control, worker, edge and storage, each once."
  }

  validation {
    condition     = alltrue([for pool in var.pools : pool.count >= 0 && pool.count <= 5000 && floor(pool.count) == pool.count])
    error_message = "count of pool ${join(", ", [for name, pool in var.pools : "${name} is ${pool.count}" if pool.count < 0 || pool.count > 5000 || floor(pool.count) != pool.count])}. Allowed: a whole number from 0 to 5000."
  }

  validation {
    condition     = sum(concat([0], [for pool in var.pools : pool.count if contains(pool.classes, "control")])) == 0 || sum(concat([0], [for pool in var.pools : pool.count if contains(pool.classes, "control")])) % 2 == 1
    error_message = "The pools make ${sum(concat([0], [for pool in var.pools : pool.count if contains(pool.classes, "control")]))} nodes of the class control, an even number. They decide by majority, so that one less survives as many failures. Allowed over all pools: 1, 3, 5 or 7 (0 where another root makes them)."
  }

  validation {
    condition     = alltrue([for pool in var.pools : trimspace(pool.size) != ""])
    error_message = "size of pool ${join(", ", [for name, pool in var.pools : name if trimspace(pool.size) == ""])} is empty. Allowed: a size of machine of the cloud."
  }

  validation {
    condition     = alltrue([for pool in var.pools : pool.zones == null || (length(coalesce(pool.zones, [])) > 0 && length(distinct(coalesce(pool.zones, []))) == length(coalesce(pool.zones, [])))])
    error_message = "zones of pool ${join(", ", [for name, pool in var.pools : "${name} is ${jsonencode(pool.zones)}" if pool.zones != null && (length(coalesce(pool.zones, [])) == 0 || length(distinct(coalesce(pool.zones, []))) != length(coalesce(pool.zones, [])))])}. Allowed: at least one zone, each named once, or none for the site's zones."
  }

  validation {
    condition     = alltrue([for pool in var.pools : pool.disk_gib >= 10 && pool.disk_gib <= 16384 && floor(pool.disk_gib) == pool.disk_gib])
    error_message = "disk_gib of pool ${join(", ", [for name, pool in var.pools : "${name} is ${pool.disk_gib}" if pool.disk_gib < 10 || pool.disk_gib > 16384 || floor(pool.disk_gib) != pool.disk_gib])}. Allowed: a whole number from 10 to 16384."
  }

  validation {
    condition = alltrue(flatten([for pool in var.pools : [for volume in pool.volumes : (
      can(regex("^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$", volume.name)) && volume.size_gib >= 1 && volume.size_gib <= 65536 && floor(volume.size_gib) == volume.size_gib
    )]]))
    error_message = "Volume ${join(", ", flatten([for name, pool in var.pools : [for volume in pool.volumes : "${name}/${volume.name} of ${volume.size_gib} GiB" if !(can(regex("^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$", volume.name)) && volume.size_gib >= 1 && volume.size_gib <= 65536 && floor(volume.size_gib) == volume.size_gib)]]))} can't be made. Allowed: a name of 1 to 20 small letters, digits and hyphens, a letter first, and a whole number of GiB from 1 to 65536."
  }

  validation {
    condition     = alltrue([for pool in var.pools : length(distinct(pool.volumes[*].name)) == length(pool.volumes) && length(pool.volumes) <= 11])
    error_message = "volumes of pool ${join(", ", [for name, pool in var.pools : "${name} is ${jsonencode(pool.volumes[*].name)}" if length(distinct(pool.volumes[*].name)) != length(pool.volumes) || length(pool.volumes) > 11])}. Allowed: at most 11 volumes, each name once in a pool."
  }

  validation {
    condition     = alltrue(flatten([for pool in var.pools : [for value in values(pool.labels) : can(regex("^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$", value))]]))
    error_message = "Label ${join(", ", flatten([for name, pool in var.pools : [for key, value in pool.labels : "${key}=${value} of pool ${name}" if !can(regex("^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$", value))]]))} has a value that Kubernetes refuses. Allowed: empty, or at most 63 letters, digits, dots, hyphens and underscores, the first and last a letter or a digit."
  }

  validation {
    condition     = alltrue(flatten([for pool in var.pools : [for key in keys(pool.labels) : can(regex("^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", key))]]))
    error_message = "Label ${join(", ", flatten([for name, pool in var.pools : [for key in keys(pool.labels) : "${jsonencode(key)} of pool ${name}" if !can(regex("^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", key))]]))} is no label's name. Allowed: at most 63 letters, digits, dots, hyphens and underscores, with a domain and a slash before them if need be (example.com/disk)."
  }
}
