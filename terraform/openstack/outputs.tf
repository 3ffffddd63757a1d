output "nodes" {
  description = "Node name -> its machine, after schemas/machines.json."
  value       = module.machines.nodes

  precondition {
    condition     = var.dns_zone == null || endswith(".${module.ports.domain}", ".${trimsuffix(coalesce(var.dns_zone, "none"), ".")}")
    error_message = "dns_zone is ${coalesce(var.dns_zone, "none")}, and the site's domain ${module.ports.domain} does not lie in it. Allowed: the domain itself, or one above it."
  }
}
