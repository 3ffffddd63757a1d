output "site" {
  description = "Name of the site."
  value       = local.name

  precondition {
    condition     = local.found
    error_message = "There is no site file ${local.site_file}. Give the site's folder as site_folder, as inventories/example shows."
  }

  precondition {
    condition     = !local.found || can(yamldecode(file(local.site_file)))
    error_message = "${local.site_file} is not valid YAML. Run ansible-inventory -i ${local.folder} --graph, which says where."
  }

  precondition {
    condition     = !local.found || can(regex("^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$", local.name))
    error_message = "${local.site_file}: site is ${jsonencode(local.name)}. Allowed: 1 to 20 small letters, digits and hyphens, neither starting nor ending with a hyphen."
  }

  precondition {
    condition     = !local.found || local.stack_known
    error_message = "${local.site_file}: stack is ${jsonencode(local.stack_name)}, and there is no such file in stacks/ of the site or the repository."
  }

  precondition {
    condition     = length(local.unknown) == 0
    error_message = "${local.site_file} and its stack ${local.stack_name} name components that do not exist: ${join(", ", local.unknown)}. Allowed: ${join(", ", sort(keys(local.manifests)))}."
  }
}

output "domain" {
  description = "DNS domain of the site."
  value       = local.domain

  precondition {
    condition     = !local.found || local.domain != ""
    error_message = "${local.site_file}: domain is missing. Write the site's DNS domain, for example prod.example.com."
  }
}

output "admin" {
  description = "From where SSH and the API may be reached: the site's networks.admin."
  value       = local.admin

  precondition {
    condition     = alltrue([for network in local.admin : can(cidrnetmask(network)) && try(cidrsubnet(network, 0, 0) == network, false)])
    error_message = "${local.site_file}: networks.admin is ${jsonencode(local.admin)}. Allowed: IPv4 networks in CIDR notation, for example 203.0.113.0/24 or 203.0.113.7/32."
  }

  precondition {
    condition     = length(local.outside) == 0
    error_message = "${local.site_file}: networks.admin is ${jsonencode(local.admin)}, without ${join(", ", [for name in local.outside : "${var.gateways[name]} (${name})"])}. The nodes' own firewall would refuse what comes from there. Add it to networks.admin."
  }
}

output "networks" {
  description = "The networks that the site's components take, which the nodes' network must not overlap."
  value       = local.networks

  precondition {
    condition     = var.network == null || (can(cidrnetmask(var.network)) && try(cidrsubnet(var.network, 0, 0) == var.network, false))
    error_message = "network_cidr is ${jsonencode(var.network)}. Allowed: an IPv4 network in CIDR notation, for example 10.20.0.0/16."
  }

  precondition {
    condition     = length(local.overlapping) == 0
    error_message = "The nodes' network ${coalesce(var.network, "none")} overlaps ${join(" and ", [for name in local.overlapping : "networks.${name} of ${local.site_file} (${local.networks[name]})"])}. Give networks that have no address in common."
  }
}

output "components" {
  description = "The components of the site, sorted."
  value       = local.components
}

output "ports" {
  description = "What the manifests of these components open: component, name, port (a text), protocol, from. The stack plugin's site_ports."
  value       = local.ports

  precondition {
    condition     = length(local.unclear) == 0
    error_message = "Ports that can't be known before the nodes are there: ${join(", ", [for port in local.unclear : "roles/${port.component}/meta/component.yml: ${port.name} is ${port.text}"])}. Allowed: a number, a range, or one variable whose value is a number in the role's defaults or in options of ${local.site_file}."
  }
}

output "rules" {
  description = "Node class -> <protocol>-<port> -> protocol, from_port, to_port, from_classes, from_admin, from_bastion, from_any, cidrs, components."
  value       = local.rules
}

output "ingress" {
  description = "The same as one map, <class>/<protocol>-<port>/<source> -> class, protocol, from_port, to_port, source (a class, nodes or bastion; or null), cidr (or null), description."
  value       = local.ingress
}

output "api_port" {
  description = "Port of the Kubernetes API; its usual one where the site has none."
  value       = try([for port in local.ports : tonumber(port.port) if port.component == "kubernetes_control" && port.name == "api"][0], 6443)
}
