output "nodes" {
  description = "Node name -> its machine, after schemas/machines.json."
  value       = module.machines.nodes

  precondition {
    condition     = alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "zones is ${jsonencode(var.zones)}, and region is ${var.region}. Allowed: availability zones of the region, for example ${var.region}a."
  }

  precondition {
    condition     = length(setsubtract([for node in module.pools.nodes : node.zone], var.zones)) == 0
    error_message = "Pools name the zones ${join(", ", setsubtract([for node in module.pools.nodes : node.zone], var.zones))}, which have no network. Add them at the end of zones."
  }

  precondition {
    condition     = var.dns_zone == null || endswith(".${module.ports.domain}", ".${trimsuffix(coalesce(var.dns_zone, "none"), ".")}")
    error_message = "dns_zone is ${coalesce(var.dns_zone, "none")}, and the site's domain ${module.ports.domain} does not lie in it. Allowed: the domain itself, or one above it."
  }
}
