output "nodes" {
  description = "Node name -> name, pool, number, classes, size, zone, labels, disk_gib, volumes, public, image."
  value       = local.nodes

  precondition {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$", var.site))
    error_message = "site is ${jsonencode(var.site)}. Allowed: 1 to 20 small letters, digits and hyphens, neither starting nor ending with a hyphen."
  }

  precondition {
    condition     = length(local.long) == 0
    error_message = "Node ${join(", ", local.long)} has a name of more than 63 characters, which no host may have. Give its pool a shorter name."
  }
}

output "volumes" {
  description = "<node>/<volume> -> node, name, size_gib, type, zone, position (from 1, in the pool's list)."
  value       = local.volumes
}
