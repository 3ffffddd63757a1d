variable "site_folder" {
  description = "Folder of the site, with its 20-stack.yml. A relative one begins at this root."
  type        = string
  default     = "../../inventories/baremetal"
  nullable    = false
}

variable "machines" {
  description = "Node name -> a machine that exists. What most of them have in common stands in `defaults`. schemas/machines.json tells each attribute. `serial` tells a machine from one that takes its place, which may show another host key."
  nullable    = false
  type = map(object({
    classes        = list(string)
    private_ip     = string
    public_ip      = optional(string)
    user           = optional(string)
    port           = optional(number)
    zone           = optional(string)
    labels         = optional(map(string))
    volumes        = optional(list(object({ name = string, size_gib = number, device = string })))
    bastion        = optional(object({ host = string, user = string, port = optional(number) }))
    ssh_host_keys  = optional(list(string))
    load_balancers = optional(map(string))
    management     = optional(object({ protocol = string, address = string }))
    serial         = optional(string)
  }))

  validation {
    condition     = length(var.machines) > 0
    error_message = "machines is empty. Allowed: at least one machine, name = { classes = [...], private_ip = \"...\" }."
  }

  validation {
    condition     = length(distinct([for machine in var.machines : machine.private_ip])) == length(var.machines)
    error_message = "machines share a private_ip: ${join("; ", [for address in distinct([for machine in var.machines : machine.private_ip]) : "${address} is that of ${join(" and ", [for name, machine in var.machines : name if machine.private_ip == address])}" if length([for machine in var.machines : machine if machine.private_ip == address]) > 1])}. Allowed: an address for each."
  }

  validation {
    condition     = length(distinct([for machine in var.machines : machine.management.address if machine.management != null])) == length([for machine in var.machines : machine if machine.management != null])
    error_message = "machines share a management address: ${join("; ", [for address in distinct([for machine in var.machines : machine.management.address if machine.management != null]) : "${address} is that of ${join(" and ", [for name, machine in var.machines : name if try(machine.management.address, "") == address])}" if length([for machine in var.machines : machine if try(machine.management.address, "") == address]) > 1])}. Whoever switches one of them off would switch off the other. Allowed: an address for each."
  }

  validation {
    condition     = length(flatten([for machine in var.machines : machine.management == null ? [] : regexall("//[^/]*@", machine.management.address)])) == 0
    error_message = "The management address of ${join(", ", [for name, machine in var.machines : name if machine.management != null && length(regexall("//[^/]*@", try(machine.management.address, ""))) > 0])} holds credentials, which would lie open in the state. Allowed: the address alone, such as https://10.0.9.11."
  }

  validation {
    condition     = sum(concat([0], [for machine in var.machines : 1 if contains(machine.classes, "control")])) % 2 == 1
    error_message = "${sum(concat([0], [for machine in var.machines : 1 if contains(machine.classes, "control")]))} machines are of the class control, an even number. They decide by majority, so that one less survives as many failures. Allowed: 1, 3, 5 or 7."
  }
}

variable "defaults" {
  description = "What machines have that do not say it themselves."
  default     = {}
  nullable    = false
  type = object({
    user    = optional(string, "root")
    port    = optional(number)
    zone    = optional(string)
    labels  = optional(map(string))
    bastion = optional(object({ host = string, user = string, port = optional(number) }))
  })
}
