output "nodes" {
  description = "Node name -> its machine, after schemas/machines.json."
  value       = module.machines.nodes

  precondition {
    condition     = can(regex("^[a-z]", module.ports.site))
    error_message = "The site is called ${module.ports.site}. Allowed on Google Compute Engine: a name that begins with a letter. Rename the site in its 20-stack.yml."
  }

  precondition {
    condition     = alltrue([for zone in var.zones : startswith(zone, "${var.region}-")])
    error_message = "zones is ${jsonencode(var.zones)}, and region is ${var.region}. Allowed: zones of the region, for example ${var.region}-a."
  }

  precondition {
    condition     = length(setsubtract([for node in module.pools.nodes : node.zone], var.zones)) == 0
    error_message = "Pools name the zones ${join(", ", setsubtract([for node in module.pools.nodes : node.zone], var.zones))}, which are not among zones. Add them there."
  }

  precondition {
    condition     = alltrue([for key in keys(module.pools.volumes) : length(key) <= 63])
    error_message = "Volume ${join(", ", [for key in keys(module.pools.volumes) : key if length(key) > 63])} has a name of more than 63 characters. Give the site, its pool or the volume a shorter name."
  }
}
